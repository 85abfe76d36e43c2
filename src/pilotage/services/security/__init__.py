"""Security: how two machines come to know each other's keys."""
