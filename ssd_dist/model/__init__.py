"""The network: backbones, heads, batch normalisation and the weights to start from."""
