"""HEAR 2021: its task folders, predictors and scores, without `heareval`.

`heareval` needs Python 3.8, TensorFlow and numpy 1.19. What it computes is here in
plain PyTorch.
"""
