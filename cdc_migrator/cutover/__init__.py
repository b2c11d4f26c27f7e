"""The switch from source to target: what must hold, the fence, the steps."""
