"""The parts of settings: store URLs and encryption keys."""
