"""Which executors there are and how one round passes through them."""
