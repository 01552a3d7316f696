"""The GFP-GAN baseline (Wang et al., CVPR 2021, arXiv 2101.04061), to compare with and to train from scratch."""
