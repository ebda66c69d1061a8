"""Start servers, wait for them, warm them up and measure them."""
