"""Task contracts: text in, Verdict | Unparsed out."""
