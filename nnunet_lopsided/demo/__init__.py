"""The main job on one machine, by public commands alone: censor, plan, train, predict, evaluate, compare."""
