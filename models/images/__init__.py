"""Networks for images beyond the small convolutional pair."""
