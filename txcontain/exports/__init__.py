"""What is here, as other tools read it: images, and documents that run them."""
