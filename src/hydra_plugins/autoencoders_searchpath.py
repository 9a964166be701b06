"""Makes the top-level folder `sweeps/` a config group, also under a primary config of the user's own."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class SweepsSearchPath(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        from autoencoders.config import REPOSITORY

        search_path.append("autoencoders", f"file://{REPOSITORY}")
