"""The results on disk: Parquet parts, their columns, and the description of each study."""
