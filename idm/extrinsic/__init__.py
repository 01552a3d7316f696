"""The extrinsic iteration: a trained model cleans its own training set."""
