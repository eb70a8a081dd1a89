"""The tasks: what embeddings, codes and surprise say about a record."""
