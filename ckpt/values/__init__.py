"""Values: from typed bytes to pieces and back, the built-in serializer, and inert views for display."""
