"""Claims: their text, their references to cells, and the guard that checks them."""
