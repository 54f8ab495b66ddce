"""A replication of Xu & Cheung, "Accurate and Compact CNNs with Trained Binarization" (BMVC 2019)."""
