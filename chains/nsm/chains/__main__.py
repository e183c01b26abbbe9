import sys

from nsm.chains.cli import main

sys.exit(main())
