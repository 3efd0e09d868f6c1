"""The part that runs in the engine's environment; `case` is what both sides speak."""
