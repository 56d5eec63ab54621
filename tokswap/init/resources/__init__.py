"""What methods need from disk: texts, word vectors, text encoders and hypernetworks."""
