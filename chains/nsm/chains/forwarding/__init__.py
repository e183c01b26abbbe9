"""What every forwarder has, whatever forwards its packets: elements that make wires by a `Dataplane`."""
