"""What tests share: machines and results files to judge, servers to download from, processes to start."""
