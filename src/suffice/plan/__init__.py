"""What things cost: pure arithmetic over volumes and prices."""
