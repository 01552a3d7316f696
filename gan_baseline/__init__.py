"""The GFP-GAN baseline (Wang et al., CVPR 2021, arXiv 2101.04061): networks, weights and training from scratch."""
