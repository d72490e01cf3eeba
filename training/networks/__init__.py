"""The networks of `training.network`, each with its defaults and the options it takes."""
