"""What may vary: knobs with their domains, conditions and rules, and the control point among them."""
