"""What a browser holds, as far as it was seen: pure, fed by the engine."""
