"""What methods need from disk: text encoders and word vectors."""
