"""Networks that training makes and export traces."""
