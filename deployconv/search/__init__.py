"""Which site takes which form: all of them, or what is measured to be faster."""
