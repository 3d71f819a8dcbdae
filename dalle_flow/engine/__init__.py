"""What runs executors."""
