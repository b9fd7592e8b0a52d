"""What runs a generating model, one file each; `suffice.specialists.runtime` says what is expected of them."""
