"""How an image becomes the network's input, and logits become the image's labels."""
