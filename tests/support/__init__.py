"""Real servers, a faulty network and patient waiting, for tests."""
