"""The networks, in torch: attention, quantizer, tokenizer, encoder, and their export. Needed for training only."""
