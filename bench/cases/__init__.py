"""What is measured: one module per benchmark, each with `run(quick, device)`."""
