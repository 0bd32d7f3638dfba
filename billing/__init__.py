"""What the customer pays for: plans and the limits that follow from them."""
