"""What must be there before the first trial: platform, node, engine, model, planner and search."""
