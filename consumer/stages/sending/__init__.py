"""How a prepared message is sent, one module for each kind; consumer/stages/send.py chooses among them."""
