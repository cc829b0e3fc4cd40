"""Episodes on disk: Parquet files, their training order, statistics, and where they come from."""

from lmrl_ray.data.builder import build, import_published
from lmrl_ray.data.order import EpisodeOrder, ShardReader
from lmrl_ray.data.own import check_own, own_path
from lmrl_ray.data.reader import EpisodeDataset
from lmrl_ray.data.schema import SCHEMA_VERSION, DataError, Metadata, fingerprint
from lmrl_ray.data.statistics import Stats, outcomes, stats
from lmrl_ray.data.writer import EpisodeWriter

__all__ = [
    "SCHEMA_VERSION",
    "DataError",
    "EpisodeDataset",
    "EpisodeOrder",
    "EpisodeWriter",
    "Metadata",
    "ShardReader",
    "Stats",
    "build",
    "check_own",
    "fingerprint",
    "import_published",
    "outcomes",
    "own_path",
    "stats",
]
