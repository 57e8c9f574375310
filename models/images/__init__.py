"""Networks for images, by architecture."""
