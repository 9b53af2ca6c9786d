"""LeRobot v3.0 datasets: schema, writer, reader, and the commands on them."""
