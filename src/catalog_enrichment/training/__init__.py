"""From labelled products to a certified artifact: data set, folds, fit, evaluation, and the job that ties them."""
