"""Small prepared data and a small run, shared by all tests that need one."""
