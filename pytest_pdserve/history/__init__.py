"""Years of nights in a folder of Parquet files: imported, listed, excluded, read as tables."""
