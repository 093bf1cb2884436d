"""The small models that rewards, evaluation and augmentation need: classifiers and how they are trained."""
