"""What flows between the steps: typed records, kept as Parquet with explicit schemas."""
