"""Who owns an address: strangers sign up with it before and after its owner, who gets an account of their own."""
