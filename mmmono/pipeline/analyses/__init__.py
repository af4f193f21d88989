"""One analysis per entrypoint: compute the results unless they exist, save them and show them."""
