"""What training minimises: one method a file, each a function of tensors."""
