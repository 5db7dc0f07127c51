"""What an annotator would get right by chance."""

import numpy as np

from annorun.votes import Floats, Posterior, Votes


def chance(votes: Votes, posterior: Posterior) -> Floats:
    """Return what each annotator's labels would get right if dealt out at random."""
    group = votes.group if posterior.group is None else posterior.group
    if posterior.group_probs is None or group is None:
        probs, group = posterior.probs[:, None], np.zeros(votes.n_annotators, dtype=np.int64)
    else:
        probs = posterior.group_probs
    # each group by the items that it voted on
    pairs = np.unique(votes.item * probs.shape[1] + group[votes.annotator])
    of_item, of_group = np.divmod(pairs, probs.shape[1])
    prior = np.zeros(probs.shape[1:])
    np.add.at(prior, of_group, probs[of_item, of_group])
    prior /= np.maximum(np.bincount(of_group, minlength=len(prior)), 1)[:, None]
    weight = prior[group[votes.annotator], votes.label]
    hit = np.bincount(votes.annotator, weights=weight, minlength=votes.n_annotators)
    given = np.bincount(votes.annotator, minlength=votes.n_annotators)
    share: Floats = hit / np.maximum(given, 1)
    return share
