def test_x(tiny_datasets):
    import cProfile, pstats
    import nnunetv2.training.nnUNetTrainer.nnUNetTrainer

    p = cProfile.Profile()
    p.enable()
    tiny_datasets("binary")
    p.disable()
    with open("/tmp/te/prof", "w") as f:
        pstats.Stats(p, stream=f).sort_stats("cumtime").print_stats(60)
